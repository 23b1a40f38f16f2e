"""The words of an application: directives, derivers, schedules, contexts."""
