"""From a message to a task: the request of a task, and the processes of a worker."""
