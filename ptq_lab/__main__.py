"""`python -m ptq_lab` is `ptq-lab`."""

from ptq_lab.cli import main

if __name__ == "__main__":
    main()
