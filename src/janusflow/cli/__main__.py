"""`python -m janusflow.cli`, the module that torchrun starts."""

import os

from janusflow.cli import main

try:
    main()
except SystemExit as finished:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not isinstance(finished.code, int):
        raise
    from janusflow.training.distributed import end

    end(finished.code)
