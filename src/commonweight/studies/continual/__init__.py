"""A study of continual learning with supermasks: one mask per task, alone or with the help of the tasks before it."""
