"""What kill_resume.py is made of."""
