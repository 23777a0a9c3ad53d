"""The console in the browser: read-only pages over the query layer.

`site` handles requests, `pages` collects the data of each page, `filters` parses filters, `charts` lays out the
charts, `words` formats codes and figures, `server` listens on this machine only. Nothing here writes.
"""
