"""What is gathered of a gateway for somebody who is to help, without anything secret."""
