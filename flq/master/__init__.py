"""The master process (Python 3.9 or newer): one service that owns the run, and HTTP around it.

`serve` is the door for a program whose workers train in their own way.
"""

from typing import Any, Dict, Optional, Union


def serve(learner: Any, config: Union[None, str, Dict[str, Any]] = None, host: str = "127.0.0.1",
          port: int = 5000, run_dir: Optional[str] = None, resume: bool = False,
          exit_when_done: bool = False, token_file: Optional[str] = None,
          certfile: Optional[str] = None, keyfile: Optional[str] = None,
          port_file: Optional[str] = None, client_ca: Optional[str] = None,
          **keywords: Any) -> int:
    """Serve a run whose workers are those of flq.worker.run; no TensorFlow is imported.

    learner: a flq.Learner, or any object with its methods. The run starts from its weights(), and
    its evaluate() tests the model; it never trains. config, keywords: the configuration, as
    flq.Config takes it; keys of FLQ's own training are refused. The others are the options of
    flq_master.py, with its defaults. Returns the exit code of the process; what went wrong stands
    in one line on standard error.

        sys.exit(flq.master.serve(MyLearner(), mode="laq", total_workers=4, max_rounds=100))
    """
    from flq import command_line
    from flq.master import own
    return command_line.run(
        "master", lambda: own.serve(
            learner, config, keywords, host=host, port=port, run_dir=run_dir, resume=resume,
            exit_when_done=exit_when_done, token_file=token_file, port_file=port_file,
            certfile=certfile, keyfile=keyfile, client_ca=client_ca))
