mod damage;
mod journey;
mod killed;
mod refusals;
mod shipping;
mod world;
