"""The contract of Reprise: messages and stubs, generated from the .proto files beside them."""
