"""What ``make release`` builds: wheel, source archive, zipapp, bill of materials, sums and provenance."""
