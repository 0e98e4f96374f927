"""Mobile client: routes texts, answers with its own layers, or offloads to edge and cloud.

::

    from mobile_client import MobileClient

    with MobileClient() as mobile:
        print(mobile.classify("a gripping, funny film").label)

`MobileClient` takes `MobileSettings` and, for each call, `RequestOptions`; it returns a
`Classification` with an `AttemptReport` for each attempt and a `CostReport`. A
`BundleDescription` has the labels and sample texts of the bundle. All errors derive from
`DimeeError`.
"""

from mobile_client.client import MobileClient
from mobile_client.options import RequestOptions
from mobile_client.settings import MobileSettings
from shared.errors import (
    AttemptRepeated,
    BundleError,
    BundleMismatch,
    ClientUnusable,
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    NotAdmitted,
    NotFound,
    NotReady,
    Overloaded,
    PolicyFailed,
    RateLimited,
    TierError,
    TierFailed,
    TierUnreachable,
    TooLarge,
)
from shared.wire import AttemptReport, BundleDescription, Classification, CostReport

__all__ = [
    "AttemptRepeated",
    "AttemptReport",
    "BundleDescription",
    "BundleError",
    "BundleMismatch",
    "Classification",
    "ClientUnusable",
    "CostReport",
    "DeadlineExceeded",
    "DimeeError",
    "InvalidInput",
    "MobileClient",
    "MobileSettings",
    "NotAdmitted",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PolicyFailed",
    "RateLimited",
    "RequestOptions",
    "TierError",
    "TierFailed",
    "TierUnreachable",
    "TooLarge",
]
