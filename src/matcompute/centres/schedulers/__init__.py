"""What schedulers are asked, and how their answers are read: live limits, queues, accounting."""
