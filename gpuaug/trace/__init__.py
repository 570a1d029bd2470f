"""Drawing, lowering and filling parameter tables, recorded once per kind of batch as a straight-line program, then run
for every batch of that kind.

Step by step in torch, a policy runs a few hundred small operations before it looks at an image: milliseconds on a host,
hundreds of kernel launches on a GPU.  A transform is still written as ordinary torch code; running it once on symbols
records what it does to one sample, and the record runs as one compiled call on a host and as one kernel on a GPU.

    symbolic keys and sizes -- sample, lower, prepare --> structure with symbols in it      tensor, aten, axes
                                                          instructions that make them       record (a `Trace`)
    structure, tables, program                            a `Recipe`                        recipe
    one recipe for each kind of batch                     `Recipes`                         cache
    program: bytecode for one Numba interpreter                                             host, interpreter
    program: constants of one Triton kernel                                                 device

What cannot be recorded is refused by `Untraceable`, never guessed, and runs step by step: the same draws, only slower.
The rules for code that is to be traced stand in `gpuaug.transforms.base`."""
