"""All that imports Flower: strategies, client app, server app, records."""
