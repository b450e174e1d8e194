"""What the server holds after each round, as lines of JSON for a test: each worker's clock and
epoch.
"""

import json
import os

from nvflare.apis.fl_component import FLComponent
from nvflare.app_common.app_event_type import AppEventType

from flq.integrations.nvflare_dxo import SHARED


class Told(FLComponent):
    """A component of the server."""

    def handle_event(self, event_type, fl_ctx):
        if event_type != AppEventType.AFTER_SHAREABLE_TO_LEARNABLE:
            return
        model = fl_ctx.get_prop(SHARED).server.model
        line = [[worker, account.clock, account.epoch]
                for worker, account in sorted(model.accounts.items())]
        with open(os.environ["ROUNDS_FILE"], "a") as file:
            file.write(json.dumps(line) + "\n")
