"""What happens to a whole trace once in a while: create, split, finish, check, repair."""
