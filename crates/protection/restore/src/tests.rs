mod damage;
mod fixture;
mod hostile;
mod refusals;
mod round_trip;
mod sums;
