"""Label safety: what in a policy may change the label of its images, by domain, and what is wrong in any.

    for finding in ga.lint(policy, domain="digits"):
        print(finding)

The command line has it as `gpuaug lint policy.yaml --domain digits`.  Rules are data: `gpuaug.lint_rules.RULES`, and a
user's own, as `Rule` objects or in a YAML file:

    rules:
      - name: no-blur
        level: error                      # error, warning or note
        transform: [blur, JPEG]           # transforms, or effects of lint_effects.EFFECTS
        where: {sigma: "> 1.5"}           # optional, of arguments and values of effects
        domains: [natural, moths]         # optional; new names are new domains
        reason: it hides what we look at
        source: our own measurements      # optional
        after: [Normalize]                # optional, as before and follows"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from gpuaug.lint_effects import Seen, seen
from gpuaug.lint_rules import DOMAINS, LEVELS, RULES, SHUFFLED, Rule, holds
from gpuaug.policy import Policy
from gpuaug.transforms import Transform

__all__ = ["DOMAINS", "LEVELS", "RULES", "Finding", "Rule", "lint", "read_rules"]


@dataclass(frozen=True)
class Finding:
    """One rule that a policy breaks, at one place."""

    level: str  # "error", "warning" or "note"
    rule: str
    where: str  # transforms[1].transforms[0], with the operation of an automatic policy; "loader"
    what: str  # the transform as the code that makes it
    reason: str
    source: str
    domain: str | None

    def __str__(self) -> str:
        return f"{self.level}: {self.where} {self.what}: {self.reason} [{self.rule}]"


def lint(
    policy: Any,
    domain: str | None = None,
    *,
    rules: Sequence[Rule] = (),
    ignore: Sequence[str] = (),
    loader: Any = None,
) -> list[Finding]:
    """What a policy does that may change labels in a domain, and what is wrong in any; errors first, then in order.

    policy: a Policy, a list of transforms, or one; what is inside others is looked at too, and the operations of
    automatic policies.  domain: one of DOMAINS, or of the rules; None: only what is wrong anywhere.  rules: of a user,
    beside the built-in ones; one of a name that is there takes its place.  ignore: names of rules.  loader: a
    DataLoader, a `gpuaug.data.Loader`, or the arguments of one as a mapping.  Raises ValueError for an unknown domain
    or name.  A class of a user is known by its name, and by gpuaug's that it derives from."""
    transforms, single = _transforms(policy)
    table = _table(rules)
    known = dict.fromkeys([*DOMAINS, *(d for r in table for d in r.domains)])
    if domain is not None and domain not in known:
        raise ValueError(f"domain must be one of {', '.join(known)}, got {domain!r}")
    names = {r.name for r in (*table, SHUFFLED)}
    for name in ignore:
        if name not in names:
            raise ValueError(f"ignore must name rules, got {name!r}; there are {', '.join(sorted(names))}")
    there = seen(transforms, single)
    found = []
    for rule in table:
        if rule.name not in ignore and (not rule.domains or domain in rule.domains):
            found += [(s, _finding(rule, s, domain)) for s in there if _breaks(rule, s, there)]
    # an operation twice in one transform is one finding
    unique = {(f.rule, f.where): (s, f) for s, f in reversed(found)}
    places = {id(s): i for i, s in enumerate(there)}
    ordered = sorted(unique.values(), key=lambda pair: (LEVELS.index(pair[1].level), places[id(pair[0])]))
    out = [f for _, f in ordered]
    if SHUFFLED.name not in ignore and loader is not None and _weighted_and_shuffled(loader):
        what = "the loader's arguments" if isinstance(loader, Mapping) else type(loader).__name__
        out.insert(0, Finding(SHUFFLED.level, SHUFFLED.name, "loader", what, SHUFFLED.reason, SHUFFLED.source, None))
    return out


def read_rules(path: str | Path) -> tuple[Rule, ...]:
    """Rules of a YAML file, in the form that the module shows; raises ValueError or OSError in a sentence."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {error.strerror}; pass a YAML file of rules") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}; pass a YAML file of rules") from None
    listed = data.get("rules") if isinstance(data, dict) else data
    if not isinstance(listed, list):
        raise ValueError(f"{path} must hold a list of rules, got {type(listed).__name__}; begin with 'rules:'")
    known = {f.name for f in fields(Rule)}
    out = []
    for n, given in enumerate(listed):
        if not isinstance(given, dict) or not {"name", "level", "transform", "reason"} <= given.keys():
            raise ValueError(f"rule {n} of {path} must have name, level, transform and reason, got {given!r:.120}")
        unknown = given.keys() - known
        if unknown:
            raise ValueError(
                f"rule {n} of {path} has no {sorted(map(str, unknown))[0]!r}; known are {', '.join(sorted(known))}"
            )
        out.append(Rule(**given))
    return tuple(out)


def _transforms(policy: Any) -> tuple[Sequence[Transform], bool]:
    if isinstance(policy, Policy):
        return policy.transforms, policy.single_resample
    given = [policy] if isinstance(policy, Transform) else policy
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(t, Transform) for t in given):
        raise TypeError(
            f"policy must be a gpuaug.Policy or a list of transforms, got {policy!r:.80}; load a file first"
        )
    return given, False


def _table(rules: Sequence[Rule]) -> list[Rule]:
    """The built-in rules with those of a user, which take the place of their names."""
    if isinstance(rules, Rule | str) or not isinstance(rules, Sequence):
        raise TypeError(f"rules must be a list of gpuaug.lint_rules.Rule, got {rules!r:.80}; read a file by read_rules")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"rules must be gpuaug.lint_rules.Rule, got {rule!r:.80}; read a file by read_rules")
    own = {rule.name for rule in rules}
    return [*(r for r in RULES if r.name not in own), *rules]


def _breaks(rule: Rule, s: Seen, there: Sequence[Seen]) -> bool:
    if not s.names & set(rule.transform) or not _holds(rule, s):
        return False
    if rule.after and not any(o.names & set(rule.after) and o.precedes(s) for o in there):
        return False
    if rule.before and not any(o.names & set(rule.before) and s.precedes(o) for o in there):
        return False
    return not rule.follows or _follows(rule, s, there)


def _follows(rule: Rule, s: Seen, there: Sequence[Seen]) -> bool:
    """Whether what stands in front of it, past moves, is one of `follows`."""
    earlier = [o for o in there if o is not s and not o.operation and o.precedes(s)]
    for other in reversed(earlier):
        if other.names & set(rule.follows):
            return True
        # a container is what is in it
        if "move" not in other.names and not other.transform.children:
            return False
    return False


def _holds(rule: Rule, s: Seen) -> bool:
    if callable(rule.where):
        return bool(rule.where(s.transform))
    for name, condition in rule.where.items():
        if name not in s.values:
            return False
        each = condition if isinstance(condition, list | tuple) else [condition]
        if not all(holds(one, s.values[name], name) for one in each):
            return False
    return True


def _finding(rule: Rule, s: Seen, domain: str | None) -> Finding:
    about = domain if rule.domains else None
    return Finding(rule.level, rule.name, s.where, repr(s.transform), rule.reason, rule.source, about)


# ---- loaders


def _weighted_and_shuffled(loader: Any) -> bool:
    """Whether a loader has both a sampler that weighs and something that shuffles; of a gpuaug loader weights are part
    of its own order."""
    parts = list(_parts(loader))
    if any(type(p).__module__.startswith("gpuaug.") for p in parts) and not isinstance(loader, Mapping):
        return False
    weighs, shuffles = any(map(_weighs, parts)), any(map(_shuffles, parts))
    return weighs and shuffles


def _parts(loader: Any) -> list[Any]:
    """A loader, its samplers, and what those sample from."""
    out: list[Any] = []
    left = [loader]
    while left:
        part = left.pop()
        if part is None or any(part is o for o in out):
            continue
        out.append(part)
        for name in ("sampler", "batch_sampler", "data_source"):
            left.append(part.get(name) if isinstance(part, Mapping) else getattr(part, name, None))
    return out


def _weighs(part: Any) -> bool:
    if isinstance(part, Mapping):
        return part.get("weights") is not None
    return "Weighted" in type(part).__name__ or getattr(part, "weights", None) is not None


def _shuffles(part: Any) -> bool:
    if isinstance(part, Mapping):
        return bool(part.get("shuffle"))
    return type(part).__name__ == "RandomSampler" or getattr(part, "shuffle", None) is True
