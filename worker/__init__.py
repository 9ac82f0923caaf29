"""The worker agent: processes of one duty each under supervisord, talking through journals and pipes."""
