"""A teacher behind servers: protocols, connections, several servers as one."""
