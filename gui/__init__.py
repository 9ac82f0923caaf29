"""Windows for submitting, configuring, signing in and watching jobs; each action is a tool, run by QProcess."""
