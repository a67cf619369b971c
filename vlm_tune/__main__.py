"""`python -m vlm_tune` is the same as the `vlm-tune` command."""

from vlm_tune.cli import main

if __name__ == "__main__":
    main()
