"""What the server of `tests.forked` imports before it forks."""

from faults.processes import import_everything

import_everything()
