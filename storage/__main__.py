"""`python -m storage`: runs a storage node."""

from keyplane import native


def main() -> None:
    native.activate_or_exit()
    # Only now: what is compiled must not have been imported before.
    from storage.command import main

    main()


if __name__ == "__main__":
    main()
