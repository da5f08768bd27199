# ruff: noqa: E501
"""Programs that try to pass without solving their task, to outlive their limit, or to do harm.

All but the last few define `f` wrongly, so that a pass means that the attack worked; what checks whether something is
possible (`attempt`) makes `f` right only if it is.
"""

from tests.programs import hostile_harm, hostile_reach, hostile_values
from tests.programs.attacking import SECRET

PROGRAMS = hostile_values.PROGRAMS | hostile_reach.PROGRAMS | hostile_harm.PROGRAMS

# What resource limits alone do not prevent (docs/code-execution.md): there, `f` is wrong whether it is possible or not.
OPEN_WITH_LIMITS_ALONE = frozenset(
    """
    subprocess shell multiprocessing memory_file shared_memory_of_others semaphores_of_others shared_memory_folder
    password_file home data_set own_package write_outside append_to_itself remove change_mode make_folder
    tcp udp unix_socket kill_parent kill_group signal_by_descriptor signal_by_control socket_by_pair
    newer_system_call limit_parent slow_parent namespace other_memory
""".split()
)
# Besides, what a test cannot undo: it would reach this machine.
TOO_HARMFUL = frozenset("""
    fork_bomb fork_without_libc daemon disk_bomb shared_memory large_file write_system kill_all
""".split())  # fmt: skip
# Programs that would run for ever, so that little time shows that they are ended.
ENDLESS = frozenset(
    """
    busy busy_at_import swallowed_timeout cancelled_alarm sleep endless_output endless_iterator iterator_as_result
    long_arithmetic patched_os half_a_message asks_without_end
""".split()
)

# Tests other than `TESTS`, which ask for what an attacker could learn from how a value is used.
OWN_TESTS = {
    "many_items_that_equal": "assert f(1) == [2] * 2**17",
    "reflected_operators": "assert abs(f(1) - 2) < 1e-6 and f(1) <= 2 and 2 == f(1)",
    "end_of_a_loop": "for x in map(f, (1, 20)): assert x == 2",
    "end_of_a_loop_by_iterator": "for y in (z for x in (1, 20) for z in f(x)): assert y == 2\nassert list(f(1)) == [2]",
    "wire_end_of_everything": "for x in map(f, (1, 20)): assert x == 2",
    "numbers_by_method": "assert abs(f(1) - 2) < 1e-6 and round(f(1)) == 2",
    "iterator_as_result": "assert list(f(1)) == [2]",
    "says_another_each_time": "assert f(1) == 2 or f(1) == 2",
    "sizes_by_method": "assert len(f(1)) == 2 and 7 in f(1)",
    "reduces_to_code": "import copy\nassert copy.deepcopy(f(1)) == 2",
    "wire_truth": "assert f(1) is True and f(1) == 2",
    "time_of_the_judge": "assert f(1) ** 2 == 4",
    "endless_iterator": f"assert list(f(1)) == [2]  # {SECRET}",
    "large_range": "assert list(f(1)) == [2]",
    "patched_builtins": "assert isinstance(f(1), int) and all(x == 2 for x in [f(1)]) and len([f(1)]) == 1",
    **dict.fromkeys(
        (
            "asks_for_a_name",
            "asks_for_globals",
            "asks_for_code",
            "asks_to_run",
            "asks_to_make_a_class",
            "asks_to_replace",
            "asks_to_compare",
            "globals_of_a_function",
        ),
        "expected = 2\ndef g(): return 5\nassert f(g) == expected and g() == 5",
    ),
    "globals_of_a_method": "expected = 2\nclass C:\n  def __init__(self): self.a = 5\n  def m(self): return 5\nassert f(C()) == expected",
    "frame_of_a_generator": "expected = 2\nassert f(x for x in [5]) == expected",
    "liar_tuple": "assert f(1) == (2,) and not f(1) != (2,)",
    "liar_list": "assert f(1) == [2] and [2] == f(1)",
    "liar_dict": "assert f(1) == {'a': 2}",
    "liar_set": "assert f(1) == {2}",
    "liar_frozenset": "assert f(1) == {2} and len({f(1), frozenset([2])}) == 1",
    "liar_error": "assert f(1) == 2",
    "liar_object": "assert not f(1) != 2 and f(1) in [2] and [2].count(f(1)) and {2: 1}[f(1)]",
    "liar_everything": "assert f(1).a.b[0](3) == 2",
    "liar_text": "assert f(1) == '3'",
    "liar_order": "assert 1 < f(1) < 3 and sorted([f(1), 2]) == [2, 2] and max(f(1), 2) == 2",
    "liar_members": "assert 2 in f(1) and 21 in f(20)",
    "liar_difference": "assert abs(f(1) - 2) < 1e-6 and 2 - f(1) == 0",
    "liar_difference_object": "assert abs(f(1) - 2) < 1e-6",
    "liar_difference_with_a_part": "assert f(1) - 2 == 0",
    "liar_difference_of_sets": "assert f(1) ^ {2} == set() and not f(1) - {2}",
    "liar_difference_as_a_class": "assert f(1) ^ {2} == set()",
    "liar_in_place": "x = f(1)\nx -= 2\nassert x == 0",
    "liar_quotient": "assert f(1) / 2 == 1",
    "liar_copy": "import copy\nassert copy.copy(f(1)) == f(1) == 2",
    "liar_index": "import math\nassert [1, 2][f(1)] == 2 or math.isclose(f(1), 2) or round(f(1)) == 2",
    "liar_of_mock_in_a_list": "assert f(1) == [2] and 2 in f(1)",
    "liar_of_mock_in_a_dict": "assert f(1) == {'a': 2}",
    "liar_of_mock_in_a_namespace": "assert f(1).a == 2",
    "liar_of_mock_in_a_user_dict": "assert f(1) == {'a': 2}",
    "liar_of_mock_by_default": "assert f(1)['x'] == 2",
    "liar_of_date": "import datetime\nassert f(1) == datetime.date(2024, 1, 2)",
    "liar_of_counter": "assert f(1) == {'a': 2}",
    "liar_of_array": "assert (f(1) == 2).all()",
    "liar_of_array_class": "assert (f(1) == 2) is True or (f(1) == 2).all()",
    "liar_of_symbol": "import sympy\nassert f(1) == sympy.Symbol('y')",
    "equal_objects": "assert f(1) == A(2)",
    "equal_objects_of_a_class": "assert f(1) == A(2) and [f(1)] == [A(2)]",
    "ordered_objects": "assert f(1) < A(2) and f(1) > A(-1)",
    "error_that_equals": "try: f(1)\nexcept ValueError as e: assert e.args == (2,)\nelse: assert False",
    "error_with_other_arguments": "try: f(1)\nexcept ValueError as e: assert e.args == (1,)\nelse: assert False",
    "empties_its_argument": "a = [3, 1]\nassert f(a) == sorted(a)",
    "fills_its_argument": "a = [3, 1]\nassert f(a) == a[:1] and a[0] == 3",
    "empties_a_part": "a = [[3, 1]]\nassert f(a) == [sorted(part) for part in a]",
    "shadowed_abs": "assert abs(f(1) - 2) < 1e-6",
    "shadowed_len": "assert len([f(1)]) == 2",
    "shadowed_set": "assert set([f(1)]) == set([2]) or sorted([f(1)]) == [2] or list([f(1)]) == [2]",
    "shadowed_isinstance": "assert isinstance(f(1), str)",
    "shadowed_math": "import math\nassert math.isclose(f(1), 2)",
    "shadowed_module": "import math\nassert math.isclose(f(1), 2)",
    "shadowed_builtins_of_the_program": "assert abs(f(1) - 2) < 1e-6 and len([f(1)]) == 1",
    "asks_without_end": "assert f(lambda: 2) == 2",
}
