/* test_gate.c: what header evidence decides, as a table of cases seen in hospitals.
 *
 * Holds: the reason, and the words that an operator reads in the evidence or the refusal; that no
 * text of the sender is shown.
 */
#include "base/mem.h"

#include "dicom/gate.h"
#include "dicom/image.h"

#include "tests/tap.h"

#define CR_CLASS "1.2.840.10008.5.1.4.1.1.1"
#define DX_CLASS "1.2.840.10008.5.1.4.1.1.1.1"
#define DX_RAW_CLASS "1.2.840.10008.5.1.4.1.1.1.1.1"
#define SC_CLASS "1.2.840.10008.5.1.4.1.1.7"

struct gate_case {
	const char *name;
	struct image_facts facts;
	enum image_reason reason;
	const char *says;        /* a part of the text */
};

#define NOT IMAGE_NOT_FRONTAL_CHEST
#define ADULT .age_years = 60
#define UNKNOWN_AGE .age_years = -1

static const struct gate_case cases[] = {
	/* the good ones */
	{ "PA film", { .modality = "CR", .body_part = "CHEST", .view_position = "PA", ADULT }, IMAGE_OK, "CR, CHEST, PA" },
	{ "AP supine", { .modality = "DX", .body_part = "PORT CHEST", .view_position = "AP SUPINE", ADULT },
	  IMAGE_OK, "DX, CHEST, AP" },
	{ "lower case, other language", { .modality = "DX", .body_part = "Thorax", .view_position = "p.a.", ADULT },
	  IMAGE_OK, "DX, CHEST, frontal" },
	{ "no view stated", { .modality = "DX", .body_part = "CHEST", ADULT }, IMAGE_OK, "view not stated" },
	{ "lungs", { .modality = "CR", .body_part = "LUNG", .view_position = "PA", ADULT }, IMAGE_OK, "CHEST" },
	{ "coded", { .modality = "DX", .anatomic_code = "51185008", .view_code = "399348003", ADULT },
	  IMAGE_OK, "chest by region code, AP" },
	{ "SRT codes", { .modality = "DX", .anatomic_code = "T-D3000", .view_code = "R-10214", ADULT }, IMAGE_OK, "PA" },
	{ "description only", { .modality = "CR", .description_chest = true, ADULT }, IMAGE_OK, "chest by description" },
	{ "unknown body part, description", { .modality = "CR", .body_part = "STANDARD", .description_chest = true, ADULT },
	  IMAGE_OK, "chest by description" },
	{ "film scan says chest itself", { .modality = "OT", .body_part = "CHEST", ADULT }, IMAGE_OK, "OT, CHEST" },
	{ "no modality, CR class", { .sop_class = CR_CLASS, .body_part = "CHEST", ADULT }, IMAGE_OK, "no modality" },
	{ "no modality, DX class, described", { .sop_class = DX_CLASS, .description_chest = true, ADULT }, IMAGE_OK, "" },
	{ "view wins over a series description", { .modality = "CR", .body_part = "CHEST", .view_position = "PA",
	  .description_lateral = true, ADULT }, IMAGE_OK, "PA" },
	{ "frontal orientation", { .modality = "CR", .body_part = "CHEST", .orientation = { "L", "F" }, ADULT }, IMAGE_OK, "" },
	{ "age unknown", { .modality = "CR", .body_part = "CHEST", UNKNOWN_AGE }, IMAGE_OK, "age unknown" },
	{ "18 is not below 18", { .modality = "CR", .body_part = "CHEST", .age_years = 18 }, IMAGE_OK, "" },

	/* other regions */
	{ "hand", { .modality = "DX", .body_part = "HAND", .view_position = "PA", ADULT }, NOT, "HAND" },
	{ "hand in spite of a description", { .modality = "DX", .body_part = "LHAND", .anatomic_code = "85562004",
	  .description_chest = true, ADULT }, NOT, "(0008,2218)" },
	{ "code against a copied body part", { .modality = "DX", .body_part = "CHEST", .anatomic_code = "72696002", ADULT },
	  NOT, "(0008,2218)" },
	{ "ribs", { .modality = "DX", .body_part = "RIBCAGE", ADULT }, NOT, "RIB" },
	{ "thoracic spine", { .modality = "CR", .body_part = "THORACIC SPINE", ADULT }, NOT, "SPINE" },
	{ "TSPINE", { .modality = "CR", .body_part = "TSPINE", ADULT }, NOT, "TSPINE" },
	{ "babygram", { .modality = "CR", .body_part = "CHESTABDOMEN", ADULT }, NOT, "ABD" },
	{ "babygram in words", { .modality = "CR", .body_part = "CHEST/ABDOMEN", ADULT }, NOT, "ABD" },
	{ "abdomen", { .modality = "CR", .body_part = "ABDOMEN", .description_chest = true, ADULT }, NOT, "ABD" },
	{ "chest and abdomen coded", { .modality = "CR", .anatomic_code = "416550000", ADULT }, NOT, "(0008,2218)" },
	{ "nothing says chest", { .modality = "DX", ADULT }, NOT, "nothing says chest" },
	{ "a view is no region", { .modality = "DX", .view_position = "PA", ADULT }, NOT, "nothing says chest" },
	{ "film scan by description only", { .modality = "OT", .sop_class = SC_CLASS, .description_chest = true, ADULT },
	  NOT, "nothing says chest" },
	{ "secondary capture without modality", { .sop_class = SC_CLASS, .description_chest = true, ADULT }, NOT, "" },
	{ "unknown word shows nothing", { .modality = "CR", .body_part = "MEIER", ADULT }, NOT, "empty or unknown" },

	/* other pictures */
	{ "CT", { .modality = "CT", .body_part = "CHEST", ADULT }, NOT, "(0008,0060)" },
	{ "report as image", { .modality = "SR", .body_part = "CHEST", ADULT }, NOT, "(0008,0060)" },
	{ "a phantom is scored, if the model may", { .modality = "DX", .body_part = "CHEST", .quality_control = true, ADULT },
	  IMAGE_OK, "CHEST" },
	{ "animal", { .modality = "DX", .body_part = "THORAX", .animal = true, ADULT }, NOT, "animal" },
	{ "for processing", { .modality = "DX", .body_part = "CHEST", .presentation_intent = "FOR PROCESSING", ADULT },
	  IMAGE_FOR_PROCESSING, "(0008,0068)" },
	{ "for processing by class", { .modality = "DX", .body_part = "CHEST", .sop_class = DX_RAW_CLASS, ADULT },
	  IMAGE_FOR_PROCESSING, "" },
	{ "for presentation", { .modality = "DX", .body_part = "CHEST", .presentation_intent = "FOR PRESENTATION",
	  .sop_class = DX_CLASS, ADULT }, IMAGE_OK, "" },

	/* other views */
	{ "LL", { .modality = "CR", .body_part = "CHEST", .view_position = "LL", ADULT }, NOT, "(0018,5101)" },
	{ "lateral", { .modality = "CR", .body_part = "CHEST", .view_position = "LATERAL", ADULT }, NOT, "(0018,5101)" },
	{ "oblique", { .modality = "CR", .body_part = "CHEST", .view_position = "RAO", ADULT }, NOT, "(0018,5101)" },
	{ "decubitus", { .modality = "CR", .body_part = "CHEST", .view_position = "LLD", ADULT }, NOT, "(0018,5101)" },
	{ "lateral by code", { .modality = "DX", .body_part = "CHEST", .view_code = "399173006", ADULT }, NOT, "(0054,0220)" },
	{ "lateral by orientation", { .modality = "DX", .body_part = "CHEST", .orientation = { "A", "F" }, ADULT },
	  NOT, "(0020,0020)" },
	{ "lateral by description", { .modality = "DX", .body_part = "CHEST", .description_lateral = true, ADULT },
	  NOT, "says lateral" },

	/* age */
	{ "child", { .modality = "CR", .body_part = "CHEST", .view_position = "PA", .age_years = 17 }, IMAGE_TOO_YOUNG, "18" },
	{ "newborn", { .modality = "CR", .body_part = "CHEST", .age_years = 0 }, IMAGE_TOO_YOUNG, "" },
	{ "a child's hand is a hand first", { .modality = "CR", .body_part = "HAND", .age_years = 5 }, NOT, "" },
};

static void table(void)
{
	const struct gate_rules rules = { .check_view = true, .min_age = 18 };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char why[IMAGE_WHY_MAX] = "";
		enum image_reason r = gate_decide(&rules, &cases[i].facts, why);

		is_str(image_reason_name(r), image_reason_name(cases[i].reason), "%s", cases[i].name);
		ok(strstr(why, cases[i].says) != NULL, "%s: \"%s\" has \"%s\"", cases[i].name, why, cases[i].says);
		if (strcmp(cases[i].facts.body_part, "MEIER") == 0)
			ok(strstr(why, "MEIER") == NULL, "an unknown word of the sender is not repeated");
	}
}

static void rules_off(void)
{
	const struct image_facts hand = { .modality = "DX", .body_part = "HAND", .age_years = 5 };
	const struct gate_rules off = { .check_view = false, .min_age = 0 };
	const struct gate_rules age_only = { .check_view = false, .min_age = 18 };
	char why[IMAGE_WHY_MAX];

	is_int(gate_decide(&off, &hand, why), IMAGE_OK, "gate off: everything passes");
	is_int(gate_decide(&age_only, &hand, why), IMAGE_TOO_YOUNG, "the age rule stands alone");
}

static const struct {
	const char *text;
	bool chest, lateral, animal;
} words[] = {
	{ "", false, false, false },
	{ "CHEST PA", true, false, false },
	{ "Thorax p.a./seitl.", true, false, false },
	{ "Thorax seitlich", true, true, false },
	{ "W033 T\xd3RAX, AP", true, false, false },       /* Latin 1 */
	{ "rx t\xc3\xb3rax lateral", true, true, false },  /* UTF-8 */
	{ "CHEST 2 VIEWS", true, false, false },
	{ "CHEST LAT", true, true, false },
	{ "PROFIL", false, true, false },
	{ "Radiographie pulmonaire de face", true, false, false },
	{ "Lungenaufnahme", true, false, false },
	{ "Befundung, Einstellung", false, false, false }, /* "lung" inside */
	{ "THORACIC SPINE AP", false, false, false },
	{ "RIBS + CHEST", false, false, false },
	{ "CHEST ABDOMEN", false, false, false },
	{ "PLATE", false, false, false },                  /* "lat" inside */
	{ "CANINE LATERAL THORAX 0-15cm", true, true, true },
	{ "KNEE", false, false, false },
	{ "^^^^", false, false, false },
	{ "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA CHEST", true, false, false },
};

int main(void)
{
	table();
	rules_off();
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		is_int(gate_text_is_chest(words[i].text), words[i].chest, "chest: \"%s\"", words[i].text);
		is_int(gate_text_is_lateral(words[i].text), words[i].lateral, "lateral: \"%s\"", words[i].text);
		is_int(gate_text_is_animal(words[i].text), words[i].animal, "animal: \"%s\"", words[i].text);
	}
	return done();
}
