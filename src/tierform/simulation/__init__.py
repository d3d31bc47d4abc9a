"""When and how much: jobs, costs, schedule, ledger, the Result."""

from tierform.simulation.charge import charge
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.simulation.simulate import run_job, simulate, simulate_many

__all__ = ["Job", "Result", "charge", "run_job", "simulate", "simulate_many"]
