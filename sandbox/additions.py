"""Replace parts of moto with the additions. Importing this module is enough, for the server and for `mock_aws`."""

from __future__ import annotations

from typing import Any

import moto.cloudformation.urls
import moto.kms.urls
import moto.xray.urls
from moto.cloudformation.responses import CloudFormationResponse

from sandbox.keys import KeyResponse
from sandbox.tracing import TracingResponse


class StackResponse(CloudFormationResponse):
    """CloudFormation, where a change set without changes is accepted: moto refuses it only if it has parameters."""

    def _validate_different_update(self, *_: Any) -> None:
        """Accept it."""


moto.cloudformation.urls.url_paths["{0}/$"] = StackResponse.dispatch

for _path in list(moto.kms.urls.url_paths):
    moto.kms.urls.url_paths[_path] = KeyResponse.dispatch

for _path in [*moto.xray.urls.url_paths, "{0}/EncryptionConfig$", "{0}/PutEncryptionConfig$"]:
    moto.xray.urls.url_paths[_path] = TracingResponse.dispatch
