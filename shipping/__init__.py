"""Build and deploy the package. This code itself does not ship."""
