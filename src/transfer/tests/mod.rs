mod damage;
mod journey;
mod killed;
mod refusals;
mod running;
mod shipping;
mod world;
