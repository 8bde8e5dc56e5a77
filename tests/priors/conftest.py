"""Every small flow prior in turn."""

import pytest
from flow_priors import FLOWS, make

from aipo.priors import FlowPrior


@pytest.fixture(params=FLOWS)
def prior(request) -> FlowPrior:
    return make(FLOWS[request.param])
