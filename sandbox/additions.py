"""Replace parts of moto with the additions. Importing this module is enough, for the server and for `mock_aws`."""

from __future__ import annotations

import moto.kms.urls
import moto.xray.urls

from sandbox.keys import KeyResponse
from sandbox.tracing import TracingResponse

for _path in list(moto.kms.urls.url_paths):
    moto.kms.urls.url_paths[_path] = KeyResponse.dispatch

for _path in [*moto.xray.urls.url_paths, "{0}/EncryptionConfig$", "{0}/PutEncryptionConfig$"]:
    moto.xray.urls.url_paths[_path] = TracingResponse.dispatch
