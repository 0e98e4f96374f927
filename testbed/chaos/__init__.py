"""What the testbed does when it is overloaded, broken and fed with nonsense."""
