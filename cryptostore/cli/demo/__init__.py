"""The main job, shown with real parts: two clients, one of them killed again and again, and no message lost."""
