"""The command `gpuaug`, as `python -m gpuaug`."""

from gpuaug.apps.cli import main

if __name__ == "__main__":
    main()
