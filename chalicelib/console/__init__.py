"""The console in the browser: what the query layer knows, as pages for the person who asked for them.

`site` answers requests, `pages` puts together what each page tells, `pictures` lays out the charts, `words` says codes
and figures for people, `server` listens on this machine only. Nothing here writes anywhere.
"""
