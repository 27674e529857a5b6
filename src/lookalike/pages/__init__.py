"""What is looked at: contact sheets and pages."""
