"""The worker process: a loop around the worker machine, a client for the master, a state that
survives.

`run` is the door for a program that trains in its own way.
"""

from typing import Any, Dict, Optional, Union


def run(learner: Any, worker_id: int = 0, master_url: Optional[str] = None,
        config: Union[None, str, Dict[str, Any]] = None, token_file: Optional[str] = None,
        state_dir: Optional[str] = None, cafile: Optional[str] = None,
        retry_for: Optional[float] = None, take_over: bool = False, cert: Optional[str] = None,
        key: Optional[str] = None) -> int:
    """Take part in a run as one worker whose training is the learner's, to the end of the run.

    learner: a flq.Learner, or any object with its methods. config: this machine's local keys, a
    dict or a file. The others are the options of flq_worker.py, with its defaults. Returns the exit
    code of the process (docs/protocol.md 8): 0 when the run has ended, and what went wrong stands
    in one line on standard error.

        sys.exit(flq.worker.run(MyLearner(), worker_id=0, master_url="http://192.168.1.10:5000"))

    docs/frameworks.md has PyTorch, JAX and scikit-learn; flq.master.serve is the other side.
    """
    from flq import command_line
    from flq.worker import own
    return command_line.run(
        "worker", lambda: own.work(
            learner, worker_id, master_url, config, cafile, retry_for, token_file=token_file,
            state_dir=state_dir, take_over=take_over, cert=cert, key=key))
