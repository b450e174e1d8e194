"""A key that somebody set and that changes nothing is named once in the log of the program that it
was given to.
"""

from tests.system.processes import set_options

IDLE = "WARNING {}: model.adam_beta2 0.5 has no effect: model.server_optimizer is not adam"
SETTINGS = ("total_workers=1", "max_rounds=2", "model.name=softmax", "adam_beta2=0.5")


def test_master_worker_and_simulation_name_a_key_without_effect_once(own_site):
    master = own_site.master(*SETTINGS)
    worker = own_site.worker("0", master, *set_options(["adam_beta2=0.5"]))
    simulation = own_site.simulate(*SETTINGS)
    for program, name in ((master, "flq.master"), (worker, "flq.worker"), (simulation,
                                                                           "flq.simulate")):
        assert program.wait() == 0
        assert program.text().count(IDLE.format(name)) == 1
        assert program.text().count("has no effect") == 1
