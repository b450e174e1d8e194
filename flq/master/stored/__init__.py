"""What is done with a run that no master serves: replay, compact, find the unfinished one."""
