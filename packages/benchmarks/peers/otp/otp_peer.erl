%% The OTP side of the benchmarks: `main [Work, Count]` prints one measurement as JSON, in nanoseconds an operation (and
%% bytes). The works are `mailbox`, `dynamic`, `restart`, `window` and `group`.
-module(otp_peer).
-behaviour(supervisor).
-export([main/1, init/1, start_parked/0, start_failing/3, start_member/3]).

main([Work, Digits]) ->
    % What a supervisor reports of its children is not what is measured.
    logger:set_primary_config(level, none),
    Rounds = [round(Work, list_to_integer(Digits)) || _ <- lists:seq(1, 6)],
    Keys = maps:keys(hd(Rounds)),
    Median = fun(Key) -> lists:nth(3, lists:sort([maps:get(Key, Round) || Round <- tl(Rounds)])) end,
    Fields = [io_lib:format("\"~s\":~.3f", [Key, Median(Key)]) || Key <- Keys],
    io:format("{~s}~n", [lists:join(",", Fields)]),
    halt().

%% Messages from one process to another.
round("mailbox", Count) ->
    Self = self(),
    #{time => time(Count, fun() ->
        spawn(fun() -> receive_all(Count), Self ! done end) ! {start, Self},
        receive Receiver when is_pid(Receiver) -> send_all(Receiver, Count) end,
        receive done -> ok end
    end)};
%% Parked children of one template: starting them, what they weigh, and stopping them.
round("dynamic", Count) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, [simple_one_for_one, 1, 1, [
        #{id => child, start => {?MODULE, start_parked, []}, restart => temporary}
    ]]),
    Before = used(Supervisor),
    Start = time(Count, fun() -> start_all(Supervisor, Count) end),
    Bytes = (used(Supervisor) - Before) / Count,
    #{fork => Start, bytes => Bytes, stop => time(Count, fun() -> gen_server:stop(Supervisor) end)};
%% A permanent child that fails at once, so many times; all of them count.
round("restart", Count) -> #{time => restarts([], Count)};
%% The same ten times, by a supervisor that has so many restarts in its window already.
round("window", Held) ->
    History = lists:duplicate(Held, erlang:monotonic_time(1)),
    Times = [restarts(History, 10) || _ <- lists:seq(1, max(2, min(100, 10000 div Held)))],
    #{time => lists:sum(Times) / length(Times)};
%% A group of so many that is restarted when its first fails, a member.
round("group", Size) ->
    Self = self(),
    {ok, Supervisor} = supervisor:start_link(?MODULE, [one_for_all, 1000, 3600, [
        #{id => Index, start => {?MODULE, start_member, [Self, Index, Size]}} || Index <- lists:seq(1, Size)
    ]]),
    Times = 5,
    Time = time(Times * Size, fun() -> fail_first(Times, running()) end),
    gen_server:stop(Supervisor),
    #{time => Time}.

time(Count, Work) ->
    Start = erlang:monotonic_time(nanosecond),
    Work(),
    (erlang:monotonic_time(nanosecond) - Start) / Count.

init([Strategy, Intensity, Period, Children]) ->
    {ok, {#{strategy => Strategy, intensity => Intensity, period => Period}, Children}}.

%% -- messages --

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

%% -- children: plain processes, the cheapest there are --

start_all(_, 0) -> ok;
start_all(Supervisor, Count) ->
    {ok, _} = supervisor:start_child(Supervisor, []),
    start_all(Supervisor, Count - 1).

start_parked() -> {ok, spawn_link(fun park/0)}.

park() -> receive never -> ok end.

used(Supervisor) ->
    erlang:garbage_collect(Supervisor),
    erlang:memory(total).

restarts(History, Count) ->
    Runs = atomics:new(1, []),
    {ok, Supervisor} = supervisor:start_link(?MODULE, [one_for_one, 100000000, 3600, []]),
    % Its state has the restarts in the eighth place.
    sys:replace_state(Supervisor, fun(State) -> [] = element(8, State), setelement(8, State, History) end),
    Start = {?MODULE, start_failing, [self(), Runs, Count]},
    {ok, First} = supervisor:start_child(Supervisor, #{id => child, start => Start}),
    Time = time(Count, fun() ->
        First ! fail,
        receive done -> ok end
    end),
    gen_server:stop(Supervisor),
    Time.

start_failing(Self, Runs, Count) ->
    {ok, spawn_link(fun() ->
        case atomics:add_get(Runs, 1, 1) of
            1 -> receive fail -> exit(failed) end;
            Run when Run =< Count -> exit(failed);
            _ -> Self ! done, park()
        end
    end)}.

start_member(Self, 1, _) ->
    First = spawn_link(fun() -> receive fail -> exit(failed) end end),
    Self ! {first, First},
    {ok, First};
start_member(Self, Size, Size) ->
    Self ! last,
    start_parked();
start_member(_, _, _) ->
    start_parked().

fail_first(0, _) -> ok;
fail_first(Times, First) ->
    First ! fail,
    fail_first(Times - 1, running()).

%% The first of the group, once the last of them runs.
running() ->
    receive {first, First} -> receive last -> First end end.
