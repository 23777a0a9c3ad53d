"""How the deployable package is made. Never shipped itself."""
