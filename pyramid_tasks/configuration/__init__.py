"""What an application says: directives, derivers, schedules, contexts."""
