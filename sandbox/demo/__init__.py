"""The whole story of the guard, told in the terminal on the sandbox: `python -m sandbox.demo`.

`chapters.py` is the story, `stage.py` what it plays on and how its claims are checked, `voice.py` how it is told.
Whatever it says happened is asked of the stand-in first; a claim that does not hold ends the demo with exit status 1.
"""
