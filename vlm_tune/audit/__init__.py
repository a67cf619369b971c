"""Labels worth questioning: ranked suspects, a sheet to rule on them, and every system scored again."""

from vlm_tune.audit.audit import LabelAudit
from vlm_tune.audit.rescoring import Change, Rescored
from vlm_tune.audit.rulings import Ruling, Rulings, Sheet
from vlm_tune.audit.suspect import Suspect

__all__ = ["Change", "LabelAudit", "Rescored", "Ruling", "Rulings", "Sheet", "Suspect"]
