"""What Slack shows, as pure functions from content to Block Kit: words, order, limits, and no markup out of foreign text."""
