"""The demo of the guard in the terminal, on the sandbox: `python -m sandbox.demo`.

`chapters.py` has the steps, `stage.py` runs and checks them, `voice.py` prints them. The demo verifies each claim
before it prints it; a claim that is not true ends the demo with exit code 1.
"""
