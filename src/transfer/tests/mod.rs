mod damage;
mod journey;
mod killed;
mod refusals;
mod world;
