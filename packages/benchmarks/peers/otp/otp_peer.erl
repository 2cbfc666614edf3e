%% The OTP side of the benchmarks: `main ["mailbox", Count]` prints one measurement as JSON, in nanoseconds an operation.
-module(otp_peer).
-export([main/1]).

main([Work, Digits]) ->
    Count = list_to_integer(Digits),
    Rounds = [time(Work, Count) || _ <- lists:seq(1, 6)],
    io:format("{\"time\":~.3f}~n", [lists:nth(3, lists:sort(tl(Rounds)))]),
    halt().

time(Work, Count) ->
    Start = erlang:monotonic_time(nanosecond),
    work(Work, Count),
    (erlang:monotonic_time(nanosecond) - Start) / Count.

%% Messages from one process to another.
work("mailbox", Count) ->
    Self = self(),
    spawn(fun() -> receive_all(Count), Self ! done end) ! {start, Self},
    receive Receiver when is_pid(Receiver) -> send_all(Receiver, Count) end,
    receive done -> ok end.

send_all(_, 0) -> ok;
send_all(Receiver, Count) ->
    Receiver ! Count,
    send_all(Receiver, Count - 1).

receive_all(Count) ->
    receive {start, Sender} -> Sender ! self() end,
    receive_count(Count).

receive_count(0) -> ok;
receive_count(Count) ->
    receive Message when is_integer(Message) -> receive_count(Count - 1) end.
