"""Replace parts of moto with the additions. Importing this module is enough, for the server and for `mock_aws`."""

from __future__ import annotations

from typing import Any

import moto.cloudformation.urls
import moto.dynamodb.models
import moto.ec2.urls
import moto.kms.urls
import moto.logs.urls
import moto.xray.urls
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from sandbox.keys import KeyResponse
from sandbox.knobs import KNOBS
from sandbox.spans import LogGroupsResponse
from sandbox.tables import PartitionedTable
from sandbox.tracing import ADDED_PATHS, TracingResponse


class StackResponse(CloudFormationResponse):
    """CloudFormation, where a change set without changes is accepted: moto refuses it only if it has parameters."""

    def _validate_different_update(self, *_: Any) -> None:
        """Accept it."""


moto.cloudformation.urls.url_paths["{0}/$"] = StackResponse.dispatch


class EnabledRegions(EC2Response):
    """EC2's API, with the Regions that the account has enabled."""

    def describe_regions(self) -> ActionResult:
        """Return the enabled Regions."""
        regions = self.ec2_backend.describe_regions(self._get_param("RegionNames", []))
        return ActionResult({"Regions": [region for region in regions if region.name in KNOBS.regions]})


moto.ec2.urls.url_paths = {"{0}/": EnabledRegions.dispatch}

moto.dynamodb.models.Table = PartitionedTable  # type: ignore[attr-defined]

for _path in list(moto.kms.urls.url_paths):
    moto.kms.urls.url_paths[_path] = KeyResponse.dispatch

moto.logs.urls.url_paths["{0}/$"] = LogGroupsResponse.dispatch

for _path in [*moto.xray.urls.url_paths, *(f"{{0}}/{path}$" for path in ADDED_PATHS)]:
    moto.xray.urls.url_paths[_path] = TracingResponse.dispatch
