"""The leaderboard as a static site, a pure function of records (``sap-art site``), and its plots (``sap-art plot``)."""
