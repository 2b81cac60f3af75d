"""What ``make audit`` checks and writes: locks, licences, the bill of materials, known vulnerabilities."""
